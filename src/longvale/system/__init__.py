"""The machine: file names, locks, checksums, Ctrl-C, optional packages, checks by `longvale doctor`."""
