// The tree as it is found after a crash, read through the file system that mounts the volume next.

package import Vocabulary

/// One name and what it leads to.
package struct ObservedObject: Hashable, Sendable {
    package var path: String
    package var kind: ModelKind
    package var inode: InodeNumber
    package var linkCount: UInt32
    /// Of a file: its bytes. Of a symbolic link: its target.
    package var content: [UInt8]
    package var attribute: [UInt8]?

    package init(
        path: String,
        kind: ModelKind,
        inode: InodeNumber,
        linkCount: UInt32,
        content: [UInt8],
        attribute: [UInt8]?
    ) {
        self.path = path
        self.kind = kind
        self.inode = inode
        self.linkCount = linkCount
        self.content = content
        self.attribute = attribute
    }
}

/// All of them, by path ascending; the root, whose path is empty, is the first.
package struct ObservedTree: Hashable, Sendable {
    package var objects: [ObservedObject]

    package init(objects: [ObservedObject]) { self.objects = objects }
}
