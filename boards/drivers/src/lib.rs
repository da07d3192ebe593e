//! lastgasp-drivers
