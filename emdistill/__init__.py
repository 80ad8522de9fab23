"""emdistill: distil a fine-tuned BERT-family encoder into a small, fast student."""
