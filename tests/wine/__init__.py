"""The batch files that CLUSTERPRO runs, under a real Windows command interpreter: Wine's cmd."""
