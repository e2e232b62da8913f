"""Planning, the trainer, and the run that trains, validates and measures one fold."""
