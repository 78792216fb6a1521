//! nixrun as a library.
