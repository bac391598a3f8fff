package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// vfs is a disk as SQLite knows it.
type vfs struct {
	tls  *libc.TLS
	own  uintptr // its sqlite3_vfs
	name uintptr // a C string
	real uintptr // the system's sqlite3_vfs
}

var (
	registered atomic.Int64
	disks      sync.Map // *Disk by the address of its sqlite3_vfs
	handles    sync.Map // *handle by the address of its sqlite3_file
)

// handle is an open file. In SQLite's memory the system's sqlite3_file follows ours.
type handle struct {
	disk *Disk
	*file
}

// ours is the room of our sqlite3_file, aligned.
const ours = 16

// inner is the system's sqlite3_file in ours.
func inner(f uintptr) uintptr { return f + ours }

// at reads a C pointer.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// call makes a Go function of a C function pointer, ptr the pointer of a function.
func call[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }
func ptr[F any](f F) uintptr  { return *(*uintptr)(unsafe.Pointer(&f)) }

// The shapes of C functions.
type (
	fnOpen    = func(tls *libc.TLS, vfs, name, f uintptr, flags int32, out uintptr) int32
	fnDelete  = func(tls *libc.TLS, vfs, name uintptr, dirSync int32) int32
	fnAccess  = func(tls *libc.TLS, vfs, name uintptr, flags int32, out uintptr) int32
	fnData    = func(tls *libc.TLS, f, buf uintptr, n int32, off int64) int32
	fnSize    = func(tls *libc.TLS, f uintptr, size int64) int32
	fnPlain   = func(tls *libc.TLS, f uintptr) int32
	fnInt     = func(tls *libc.TLS, f uintptr, n int32) int32
	fnPointer = func(tls *libc.TLS, f, p uintptr) int32
	fnControl = func(tls *libc.TLS, f uintptr, op int32, arg uintptr) int32
	fnShmMap  = func(tls *libc.TLS, f uintptr, region, size, extend int32, out uintptr) int32
	fnShmLock = func(tls *libc.TLS, f uintptr, offset, n, flags int32) int32
	fnBarrier = func(tls *libc.TLS, f uintptr)
)

// methods are those of an open file, without mapped reads.
var methods = lib.Tsqlite3_io_methods{
	FiVersion: 2,
	FxClose:   ptr[fnPlain](xClose), FxRead: ptr[fnData](xRead), FxWrite: ptr[fnData](xWrite),
	FxTruncate: ptr[fnSize](xTruncate), FxSync: ptr[fnInt](xSync), FxFileSize: ptr[fnPointer](xFileSize),
	FxLock: ptr[fnInt](func(tls *libc.TLS, f uintptr, n int32) int32 { return call[fnInt](system(f).FxLock)(tls, inner(f), n) }),
	FxUnlock: ptr[fnInt](func(tls *libc.TLS, f uintptr, n int32) int32 {
		return call[fnInt](system(f).FxUnlock)(tls, inner(f), n)
	}),
	FxCheckReservedLock: ptr[fnPointer](func(tls *libc.TLS, f, p uintptr) int32 {
		return call[fnPointer](system(f).FxCheckReservedLock)(tls, inner(f), p)
	}),
	FxFileControl: ptr[fnControl](xFileControl),
	FxSectorSize:  ptr[fnPlain](func(tls *libc.TLS, f uintptr) int32 { return call[fnPlain](system(f).FxSectorSize)(tls, inner(f)) }),
	FxDeviceCharacteristics: ptr[fnPlain](func(tls *libc.TLS, f uintptr) int32 {
		return call[fnPlain](system(f).FxDeviceCharacteristics)(tls, inner(f))
	}),
	FxShmMap: ptr[fnShmMap](func(tls *libc.TLS, f uintptr, region, size, extend int32, out uintptr) int32 {
		return call[fnShmMap](system(f).FxShmMap)(tls, inner(f), region, size, extend, out)
	}),
	FxShmLock: ptr[fnShmLock](func(tls *libc.TLS, f uintptr, offset, n, flags int32) int32 {
		return call[fnShmLock](system(f).FxShmLock)(tls, inner(f), offset, n, flags)
	}),
	FxShmBarrier: ptr[fnBarrier](func(tls *libc.TLS, f uintptr) { call[fnBarrier](system(f).FxShmBarrier)(tls, inner(f)) }),
	FxShmUnmap: ptr[fnInt](func(tls *libc.TLS, f uintptr, n int32) int32 {
		return call[fnInt](system(f).FxShmUnmap)(tls, inner(f), n)
	}),
}

// system returns the methods of the system's file in ours.
func system(f uintptr) *lib.Tsqlite3_io_methods {
	return at[lib.Tsqlite3_io_methods](at[lib.Tsqlite3_file](inner(f)).FpMethods)
}

// register gives SQLite a copy of its default VFS with our files.
func (d *Disk) register() (err error) {
	d.name = fmt.Sprintf("disktest%d", registered.Add(1))
	v := &d.vfs
	v.tls = libc.NewTLS()
	if v.real = lib.Xsqlite3_vfs_find(v.tls, 0); v.real == 0 {
		v.tls.Close()
		return errors.New("SQLite has no VFS")
	}
	if v.name, err = libc.CString(d.name); err != nil {
		v.tls.Close()
		return err
	}
	if v.own = libc.Xmalloc(v.tls, libc.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_vfs{}))); v.own == 0 {
		libc.Xfree(v.tls, v.name)
		v.tls.Close()
		return errors.New("out of memory")
	}
	c := at[lib.Tsqlite3_vfs](v.own)
	*c = *at[lib.Tsqlite3_vfs](v.real)
	c.FszOsFile += ours
	c.FpNext, c.FzName = 0, v.name
	c.FxOpen, c.FxDelete, c.FxAccess = ptr[fnOpen](xOpen), ptr[fnDelete](xDelete), ptr[fnAccess](xAccess)
	disks.Store(v.own, d)
	if rc := lib.Xsqlite3_vfs_register(v.tls, v.own, 0); rc != lib.SQLITE_OK {
		return errors.Join(fmt.Errorf("register %s: %d", d.name, rc), d.Close())
	}
	return nil
}

// Close unregisters the disk, once every database is closed.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open > 0 {
		return fmt.Errorf("%d files are open", d.open)
	}
	v := &d.vfs
	lib.Xsqlite3_vfs_unregister(v.tls, v.own)
	disks.Delete(v.own)
	libc.Xfree(v.tls, v.own)
	libc.Xfree(v.tls, v.name)
	v.tls.Close()
	return nil
}

func disk(vfs uintptr) *Disk {
	d, _ := disks.Load(vfs)
	return d.(*Disk)
}

func opened(f uintptr) *handle {
	h, _ := handles.Load(f)
	return h.(*handle)
}

func xOpen(tls *libc.TLS, vfs, name, f uintptr, flags int32, out uintptr) int32 {
	d := disk(vfs)
	open := call[fnOpen](at[lib.Tsqlite3_vfs](d.vfs.real).FxOpen)
	var kind Kind
	switch {
	case flags&lib.SQLITE_OPEN_MAIN_DB != 0:
		kind = Database
	case flags&lib.SQLITE_OPEN_WAL != 0:
		kind = WAL
	case flags&lib.SQLITE_OPEN_MAIN_JOURNAL != 0:
		kind = Journal
	default: // temporary: it needs no disk
		return open(tls, d.vfs.real, name, f, flags, out)
	}
	at[lib.Tsqlite3_file](f).FpMethods = 0
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isDark() {
		return lib.SQLITE_CANTOPEN
	}
	path := libc.GoString(name)
	before, err := os.Lstat(path)
	if rc := open(tls, d.vfs.real, name, inner(f), flags, out); rc != lib.SQLITE_OK {
		return rc
	}
	if d.files[path] == nil {
		// An empty database is one that was just made, without a sync.
		d.files[path] = &file{kind: kind, linked: err == nil && (kind != Database || before.Size() > 0)}
		if rc := d.files[path].load(tls, f); rc != lib.SQLITE_OK {
			call[fnPlain](system(f).FxClose)(tls, inner(f))
			delete(d.files, path)
			return rc
		}
	}
	handles.Store(f, &handle{d, d.files[path]})
	at[lib.Tsqlite3_file](f).FpMethods = uintptr(unsafe.Pointer(&methods))
	d.open++
	return lib.SQLITE_OK
}

// load reads the real file.
func (f *file) load(tls *libc.TLS, p uintptr) int32 {
	size := new(int64)
	defer runtime.KeepAlive(size)
	if rc := call[fnPointer](system(p).FxFileSize)(tls, inner(p), uintptr(unsafe.Pointer(size))); rc != lib.SQLITE_OK || *size == 0 {
		return rc
	}
	f.data = make([]byte, *size)
	return call[fnData](system(p).FxRead)(tls, inner(p), uintptr(unsafe.Pointer(unsafe.SliceData(f.data))), int32(*size), 0)
}

func xClose(tls *libc.TLS, f uintptr) int32 {
	h := opened(f)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	handles.Delete(f)
	h.disk.open--
	return call[fnPlain](system(f).FxClose)(tls, inner(f))
}

func xRead(_ *libc.TLS, f, buf uintptr, n int32, off int64) int32 {
	h := opened(f)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.disk.isDark() {
		return lib.SQLITE_IOERR
	}
	b := unsafe.Slice(at[byte](buf), n)
	got := copy(b, h.data[min(off, int64(len(h.data))):])
	clear(b[got:])
	if got < len(b) {
		return lib.SQLITE_IOERR_SHORT_READ
	}
	return lib.SQLITE_OK
}

func xWrite(_ *libc.TLS, f, buf uintptr, n int32, off int64) int32 {
	h := opened(f)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if !h.disk.isDark() && !h.disk.grow(max(0, off+int64(n)-int64(len(h.data)))) {
		return lib.SQLITE_FULL
	}
	b := bytes.Clone(unsafe.Slice(at[byte](buf), n))
	return h.change(Write, change{off, b})
}

func xTruncate(_ *libc.TLS, f uintptr, size int64) int32 {
	h := opened(f)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if !h.disk.isDark() {
		h.disk.grow(size - int64(len(h.data)))
	}
	return h.change(Truncate, change{size, nil})
}

// change makes a change that is not yet synced. The one at which the power is cut
// may be half way to the disk.
func (h *handle) change(a Action, c change) int32 {
	if h.disk.isDark() {
		return lib.SQLITE_IOERR
	}
	h.pending = append(h.pending, c)
	if h.disk.refuses(Op{a, h.kind}) {
		return lib.SQLITE_IOERR
	}
	h.data = c.apply(h.data)
	return lib.SQLITE_OK
}

// xSync makes the file's changes last, and its name when it is a new log or
// journal: for those, and only for those, SQLite syncs the directory too.
func xSync(tls *libc.TLS, f uintptr, _ int32) int32 {
	h := opened(f)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.disk.refuses(Op{Sync, h.kind}) {
		return lib.SQLITE_IOERR
	}
	for _, c := range h.pending {
		rc := int32(lib.SQLITE_OK)
		if c.data == nil {
			rc = call[fnSize](system(f).FxTruncate)(tls, inner(f), c.at)
		} else {
			rc = call[fnData](system(f).FxWrite)(tls, inner(f), uintptr(unsafe.Pointer(unsafe.SliceData(c.data))), int32(len(c.data)), c.at)
		}
		if rc != lib.SQLITE_OK {
			return rc
		}
	}
	h.pending = nil
	if !h.linked && h.kind != Database {
		h.disk.synced()
	}
	return lib.SQLITE_OK
}

func xFileSize(_ *libc.TLS, f, out uintptr) int32 {
	h := opened(f)
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.disk.isDark() {
		return lib.SQLITE_IOERR
	}
	*at[int64](out) = int64(len(h.data))
	return lib.SQLITE_OK
}

// xFileControl keeps the system from changing the real file's size.
func xFileControl(tls *libc.TLS, f uintptr, op int32, arg uintptr) int32 {
	if op == lib.SQLITE_FCNTL_SIZE_HINT || op == lib.SQLITE_FCNTL_CHUNK_SIZE {
		return lib.SQLITE_NOTFOUND
	}
	return call[fnControl](system(f).FxFileControl)(tls, inner(f), op, arg)
}

func xDelete(tls *libc.TLS, vfs, name uintptr, dirSync int32) int32 {
	d := disk(vfs)
	path := libc.GoString(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[path]
	kind := WAL
	if f != nil {
		kind = f.kind
	}
	if d.refuses(Op{Delete, kind}) {
		return lib.SQLITE_IOERR
	}
	content, err := os.ReadFile(path)
	if err == nil && (f == nil || f.linked) {
		d.removed[path] = content
	}
	if f != nil {
		d.grow(-int64(len(f.data)))
		delete(d.files, path)
	}
	rc := call[fnDelete](at[lib.Tsqlite3_vfs](d.vfs.real).FxDelete)(tls, d.vfs.real, name, 0)
	if rc == lib.SQLITE_OK && dirSync != 0 {
		d.synced()
	}
	return rc
}

// xAccess answers for files of which the real one may be shorter.
func xAccess(tls *libc.TLS, vfs, name uintptr, flags int32, out uintptr) int32 {
	d := disk(vfs)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isDark() {
		return lib.SQLITE_IOERR
	}
	if f := d.files[libc.GoString(name)]; f != nil && flags == lib.SQLITE_ACCESS_EXISTS {
		*at[int32](out) = 0
		if len(f.data) > 0 {
			*at[int32](out) = 1
		}
		return lib.SQLITE_OK
	}
	return call[fnAccess](at[lib.Tsqlite3_vfs](d.vfs.real).FxAccess)(tls, d.vfs.real, name, flags, out)
}
