//! The program that only exits: what every runtime in the comparison is asked to run.
//!
//! Without Rust's runtime, whose start takes longer than the whole exec of this.
#![no_main]

/// C's entry point.
// SAFETY: the symbol that the C library's start-up code calls, with its signature.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: i32, _argv: *const *const libc::c_char) -> i32 {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(0) }
}
