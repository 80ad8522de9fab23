"""Whoever teaches a run: a model, several models, a file of answers, or nobody; open_teacher.py tells them apart."""
