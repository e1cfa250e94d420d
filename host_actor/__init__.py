"""One actor on every host: observe the switch, plan the difference to what is desired, execute it."""
