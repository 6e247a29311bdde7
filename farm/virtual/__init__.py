"""The virtual board: a process of its own around QEMU, reached as a bench reaches a board.

Outside of this package it is seen only through RFC2217 serial and an HTTP power port.
"""
