//! Small guest kernels to test a VMM with.
