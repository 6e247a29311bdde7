"""The main job: scenarios on a board, from boot to report, each cycle stored as it happens."""
