"""The command line. Here are the exit statuses, which every command shares."""

# Fine; a check found something bad; the command could not be carried out; stopped by Ctrl-C.
OK, BAD, ERROR, INTERRUPTED = 0, 1, 2, 130
