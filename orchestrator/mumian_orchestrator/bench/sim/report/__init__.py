"""What runs come to: figures, tables, CSV, JSON and one HTML page."""
