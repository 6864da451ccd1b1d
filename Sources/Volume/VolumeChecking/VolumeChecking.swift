// VolumeChecking
