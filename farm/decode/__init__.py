"""``farm decode``: what a file holds that panicdump left behind."""
