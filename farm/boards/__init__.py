"""Descriptions of real boards: where ramoops can lie, the overlay that puts it there, the bench."""
