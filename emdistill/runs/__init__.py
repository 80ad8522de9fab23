"""What a run leaves behind: its folder and who owns it, its record, its flows and answers, and what they compare to."""
