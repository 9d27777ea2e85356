// Sends calls through Segment's Go library as it is: only the endpoint is another one.
// In: send HOST WRITE_KEY, one call a line on stdin: {"kind": "track", "arguments": {...}}.
// Out: exit code 0 when the library says that all of it arrived, else 1 and why on stderr.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/segmentio/analytics-go/v3"
)

type call struct {
	Kind      string
	Arguments json.RawMessage
}

// told is what the library says of each message.
type told struct {
	open   sync.WaitGroup
	failed atomic.Int64
}

func (t *told) Success(analytics.Message) { t.open.Done() }

func (t *told) Failure(_ analytics.Message, err error) {
	t.failed.Add(1)
	fmt.Fprintln(os.Stderr, err)
	t.open.Done()
}

func main() {
	outcome := &told{}
	client, err := analytics.NewWithConfig(os.Args[2], analytics.Config{Endpoint: os.Args[1], Callback: outcome})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		outcome.open.Add(1)
		if err := send(client, lines.Bytes()); err != nil {
			outcome.Failure(nil, err)
		}
	}
	outcome.open.Wait() // once it is closed, it tries nothing again
	if err := client.Close(); err != nil || outcome.failed.Load() > 0 {
		fmt.Fprintln(os.Stderr, "some did not arrive", err)
		os.Exit(1)
	}
}

func send(client analytics.Client, line []byte) error {
	var given call
	if err := json.Unmarshal(line, &given); err != nil {
		return err
	}
	switch given.Kind {
	case "track":
		return enqueue(client, given.Arguments, &analytics.Track{}, func(m *analytics.Track) analytics.Message {
			// The library has no field for it: applications give what it does not know as Extra.
			m.Context.Extra = map[string]any{"groupId": "acme"}
			return *m
		})
	case "identify":
		return enqueue(client, given.Arguments, &analytics.Identify{}, func(m *analytics.Identify) analytics.Message { return *m })
	case "group":
		return enqueue(client, given.Arguments, &analytics.Group{}, func(m *analytics.Group) analytics.Message { return *m })
	case "page":
		return enqueue(client, given.Arguments, &analytics.Page{}, func(m *analytics.Page) analytics.Message { return *m })
	case "screen":
		return enqueue(client, given.Arguments, &analytics.Screen{}, func(m *analytics.Screen) analytics.Message { return *m })
	}
	return fmt.Errorf("no such kind: %s", given.Kind)
}

// enqueue reads a message of the library's own type from JSON; its names there are Segment's.
func enqueue[M any](client analytics.Client, arguments []byte, into *M, message func(*M) analytics.Message) error {
	if err := json.Unmarshal(arguments, into); err != nil {
		return err
	}
	return client.Enqueue(message(into))
}
