//! lastgasp-tests
