"""`netplugin lab`: a cluster on one machine, to look at, to try things on, and for tests."""
