"""The command lines: `netctl`, one file a noun, and `netdcli`, the one of 2015."""
