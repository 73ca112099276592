"""Any program, any language: servers between a client and the API, and commands run against them."""
