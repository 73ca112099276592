"""`retold pin`: write a recorded run as a regression test, a file of pytest and a cassette."""
