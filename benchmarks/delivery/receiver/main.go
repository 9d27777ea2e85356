// Command receiver answers 200 to every POST after a latency, on one core, and records what came.
//
// It prints its port, "first" at the first request and "done" once --expect requests are answered; when its standard
// input closes it prints what it recorded as JSON, and ends. sink.py is the same in Python, for where there is no Go.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// atOnce is how many requests may wait for their answer.
const atOnce = 10_000

var ok = []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

// visitor is what is known of one: its requests must come one at a time, in order.
type visitor struct {
	received, lastSequence, open int
	first, last                  time.Time
	delayed                      time.Duration
}

// record is what came, of all connections.
type record struct {
	mutex                          sync.Mutex
	visitors                       map[string]*visitor
	expect                         int
	received, answered, violations int
	first, last                    time.Time
	delayed                        time.Duration
	cpuAtFirst, cpuAtDone          time.Duration
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (all *record) request(body []byte) (*visitor, time.Time) {
	id, sequence := between(body, `"visitorId":"`, '"'), sequenceOf(body)
	all.mutex.Lock()
	defer all.mutex.Unlock()
	now := time.Now()
	if all.received == 0 {
		all.first, all.cpuAtFirst = now, cpu()
		fmt.Println("first")
	}
	all.received++
	one := all.visitors[string(id)]
	if one == nil {
		one = &visitor{lastSequence: -1, first: now}
		all.visitors[string(id)] = one
	}
	if one.open > 0 || sequence <= one.lastSequence {
		all.violations++
	}
	one.received++
	one.last = now
	one.open++
	one.lastSequence = max(one.lastSequence, sequence)
	return one, now
}

func (all *record) answering(one *visitor, received time.Time) {
	all.mutex.Lock()
	defer all.mutex.Unlock()
	one.open--
	all.answered++
	all.last = time.Now()
	delay := all.last.Sub(received)
	all.delayed += delay
	one.delayed += delay
}

// done is told after the answer is written.
func (all *record) done() {
	all.mutex.Lock()
	defer all.mutex.Unlock()
	if all.answered == all.expect && all.cpuAtDone == 0 {
		all.cpuAtDone = cpu()
		fmt.Println("done")
	}
}

func (all *record) asJSON() []byte {
	all.mutex.Lock()
	defer all.mutex.Unlock()
	hottest := &visitor{}
	for _, one := range all.visitors {
		if one.received > hottest.received {
			hottest = one
		}
	}
	text, err := json.Marshal(map[string]any{
		"received":         all.received,
		"seconds":          all.last.Sub(all.first).Seconds(),
		"order_violations": all.violations,
		"hottest":          hottest.received,
		"hottest_seconds":  hottest.delayed.Seconds(),
		"cycle_ms":         1e3 * hottest.last.Sub(hottest.first).Seconds() / float64(max(hottest.received-1, 1)),
		"latency_ms":       1e3 * all.delayed.Seconds() / float64(max(all.answered, 1)),
		"cpu_seconds":      (all.cpuAtDone - all.cpuAtFirst).Seconds(),
	})
	if err != nil {
		log.Fatal(err)
	}
	return text
}

func between(body []byte, before string, end byte) []byte {
	_, rest, found := bytes.Cut(body, []byte(before))
	if !found {
		return nil
	}
	return rest[:max(bytes.IndexByte(rest, end), 0)]
}

func sequenceOf(body []byte) int {
	_, rest, found := bytes.Cut(body, []byte(`"sequence":`))
	number := 0
	for found && len(rest) > 0 && '0' <= rest[0] && rest[0] <= '9' {
		number, rest = 10*number+int(rest[0]-'0'), rest[1:]
	}
	return number
}

// read reads one request; its body is valid until the next.
func read(reader *bufio.Reader, body []byte) ([]byte, error) {
	length := -1
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, fmt.Errorf("a request without content-length")
	}
	if cap(body) < length {
		body = make([]byte, length)
	}
	_, err := io.ReadFull(reader, body[:length])
	return body[:length], err
}

// exchange is a request that is not yet answered.
type exchange struct {
	connection net.Conn
	visitor    *visitor
	received   time.Time
}

func (all *record) answer(one exchange) {
	all.answering(one.visitor, one.received)
	if _, err := one.connection.Write(ok); err != nil {
		log.Print(err)
		return
	}
	all.done()
}

// answerLate answers each exchange a latency after it was received; since all wait equally long, one after the other.
func (all *record) answerLate(exchanges <-chan exchange, latency time.Duration) {
	alarm := newAlarm()
	for one := range exchanges {
		alarm.wait(latency - time.Since(one.received))
		all.answer(one)
	}
}

func serve(connection net.Conn, all *record, answer func(exchange)) {
	defer connection.Close()
	reader := bufio.NewReader(connection)
	var body []byte
	for {
		var err error
		if body, err = read(reader, body); err != nil {
			return
		}
		visitor, received := all.request(body)
		answer(exchange{connection, visitor, received})
	}
}

func listen(certificate, key string) net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if certificate == "" {
		return listener
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})
}

func main() {
	latencyMs := flag.Float64("latency-ms", 0, "how long an answer takes")
	expect := flag.Int("expect", 0, "how many requests are to come")
	certificate := flag.String("certificate", "", "PEM file; TLS is spoken with it")
	key := flag.String("key", "", "its key")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)

	all := &record{visitors: map[string]*visitor{}, expect: *expect}
	answer := all.answer
	if *latencyMs > 0 {
		exchanges := make(chan exchange, atOnce)
		go all.answerLate(exchanges, time.Duration(*latencyMs*float64(time.Millisecond)))
		answer = func(one exchange) { exchanges <- one }
	}
	listener := listen(*certificate, *key)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go serve(connection, all, answer)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println(string(all.asJSON()))
}
