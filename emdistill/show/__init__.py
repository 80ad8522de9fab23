"""What people look at: pages, their sections and charts, and model cards."""
