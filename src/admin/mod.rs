//! The admin socket: what the command line asks the daemon.
