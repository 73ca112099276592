"""Sessions of the Claude Agent SDK: recorded from the lines of its child process, and replayed without the child."""
