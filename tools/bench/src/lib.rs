//! lastgasp-bench
