//! lastgasp-hal-sim
