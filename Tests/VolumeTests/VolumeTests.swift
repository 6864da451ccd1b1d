// VolumeTests
