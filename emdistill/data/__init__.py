"""What we learn from: the forms that data come in, files, rows and batches."""
