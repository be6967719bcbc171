//! Wanted against actual: brings the kernel to the wanted objects and keeps it there.
