"""What every part of the program stands on: errors, folders and the processes of a run."""
