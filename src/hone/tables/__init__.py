"""What the commands print: plain text from results, run folders and plans; never imports torch."""
