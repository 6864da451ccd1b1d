// VolumeMaking
