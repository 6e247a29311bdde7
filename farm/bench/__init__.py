"""The bench, by way of labgrid: console, shell, power, and what a panic cycle does with them."""
