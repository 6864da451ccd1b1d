// FuseServer
