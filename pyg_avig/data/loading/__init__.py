"""What feeds a training: data modules, and the order, seeds, files and streams under them."""
