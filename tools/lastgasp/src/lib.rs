//! lastgasp
