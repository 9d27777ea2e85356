package main

import (
	"log"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// alarm waits by Linux' timerfd: Go's own timers are up to a millisecond late while connections are busy.
type alarm struct {
	descriptor uintptr
	file       *os.File
}

const clockMonotonic = 1

func newAlarm() alarm {
	descriptor, _, err := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, clockMonotonic, syscall.O_NONBLOCK, 0)
	if err != 0 {
		log.Fatal(err)
	}
	return alarm{descriptor, os.NewFile(descriptor, "timerfd")}
}

func (a alarm) wait(duration time.Duration) {
	if duration <= 0 {
		return
	}
	// struct itimerspec: an interval (none), and the time until it rings.
	setting := [2]syscall.Timespec{1: syscall.NsecToTimespec(duration.Nanoseconds())}
	_, _, err := syscall.Syscall6(
		syscall.SYS_TIMERFD_SETTIME, a.descriptor, 0, uintptr(unsafe.Pointer(&setting)), 0, 0, 0)
	if err != 0 {
		log.Fatal(err)
	}
	var rung [8]byte
	if _, err := a.file.Read(rung[:]); err != nil {
		log.Fatal(err)
	}
}
