//! lastgasp-hal-linux
