// Mounted
