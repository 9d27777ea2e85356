package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hamba/avro/v2/soe"
	"github.com/optimizely/go-sdk/v2/pkg/client"
	"github.com/optimizely/go-sdk/v2/pkg/notification"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Events that wait for Kafka; more are refused, so that an outage costs a bounded amount of memory.
const maxQueued = 100_000

// decisionEvent has the fields of DecisionEvent.avsc that this service fills; the others keep their default, null.
type decisionEvent struct {
	EventID                 string         `avro:"event_id"`
	OccurredAt              int64          `avro:"occurred_at"` // epoch ms
	Source                  *source        `avro:"source"`
	VisitorID               string         `avro:"visitor_id"`
	FlagKey                 string         `avro:"flag_key"`
	Enabled                 bool           `avro:"enabled"`
	VariationKey            *string        `avro:"variation_key"`
	RuleKey                 *string        `avro:"rule_key"`
	DecisionEventDispatched bool           `avro:"decision_event_dispatched"`
	RuleType                *string        `avro:"rule_type"`
	Attributes              map[string]any `avro:"attributes"`
}

type source struct {
	Service *string `avro:"service"`
	SDK     *string `avro:"sdk"`
}

// DecisionPublisher publishes an Optimizely client's flag decisions to Kafka, in the form that Flagpost reads.
//
// Nothing in it panics into Decide or waits there.
type DecisionPublisher struct {
	kafka   *kgo.Client
	codec   *soe.Codec
	options Options
	rules   atomic.Pointer[ruleTypes]

	Delivered, Failed atomic.Int64
}

// Options say where decisions go and what of them.
type Options struct {
	BootstrapServers []string
	Topic            string
	SchemaPath       string           // DecisionEvent.avsc
	Service          string           // this service's name
	Attributes       []string         // user attributes to carry; none by default, they may be personal
	Now              func() time.Time // time.Now, but for tests
	OnError          func(error)
}

// NewDecisionPublisher reads the schema and makes a Kafka client, which connects on its own.
func NewDecisionPublisher(options Options) (*DecisionPublisher, error) {
	text, err := os.ReadFile(options.SchemaPath)
	if err != nil {
		return nil, err
	}
	codec, err := singleObjectCodec(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", options.SchemaPath, err)
	}
	kafka, err := kgo.NewClient(
		kgo.SeedBrokers(options.BootstrapServers...),
		kgo.DefaultProduceTopic(options.Topic),
		// Java's murmur2: a visitor has one partition, whoever publishes. Idempotence and acks=all are defaults.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.MaxBufferedRecords(maxQueued),
		kgo.WithLogger(kgo.BasicLogger(os.Stderr, kgo.LogLevelWarn, nil)),
	)
	if err != nil {
		return nil, err
	}
	publisher := &DecisionPublisher{kafka: kafka, codec: codec, options: options}
	publisher.rules.Store(&ruleTypes{})
	return publisher, nil
}

// Attach listens to the decisions that are announced at the center; call it before the first Decide.
func (p *DecisionPublisher) Attach(center notification.Center) error {
	_, err := center.AddHandler(notification.Decision, func(payload any) {
		if decision, ok := payload.(notification.DecisionNotification); ok && decision.Type == notification.Flag {
			p.publish(decision)
		}
	})
	return err
}

// Follow reads the rules of the client's datafile, now and whenever it changes; call it before the first Decide.
func (p *DecisionPublisher) Follow(optimizely *client.OptimizelyClient) {
	read := func() {
		types, err := readRuleTypes(optimizely.GetOptimizelyConfig())
		if err != nil {
			p.options.OnError(fmt.Errorf("flagpost: the datafile's rules could not be read, events carry no rule_type: %w", err))
		}
		p.rules.Store(&types)
	}
	// A datafile that never changes (StaticProjectConfigManager) takes no handler.
	_, _ = optimizely.ConfigManager.OnProjectConfigUpdate(func(notification.ProjectConfigUpdateNotification) { read() })
	read()
}

// Close waits until Kafka has everything, or ctx is done; it gives how many events failed since the start.
func (p *DecisionPublisher) Close(ctx context.Context) int64 {
	if err := p.kafka.Flush(ctx); err != nil {
		_ = p.kafka.AbortBufferedRecords(context.Background()) // what is left fails, and is told as that
	}
	p.kafka.Close()
	return p.Failed.Load()
}

func (p *DecisionPublisher) publish(decision notification.DecisionNotification) {
	defer func() {
		if cause := recover(); cause != nil {
			p.fail(fmt.Errorf("%v", cause))
		}
	}()
	value, err := p.codec.Encode(p.event(decision))
	if err != nil {
		p.fail(err)
		return
	}
	record := &kgo.Record{Key: []byte(decision.UserContext.ID), Value: value}
	p.kafka.TryProduce(context.Background(), record, p.reported)
}

// reported is called once for each record, by the Kafka client.
func (p *DecisionPublisher) reported(_ *kgo.Record, err error) {
	if err != nil {
		p.fail(err)
		return
	}
	p.Delivered.Add(1)
}

func (p *DecisionPublisher) fail(err error) {
	p.Failed.Add(1)
	p.options.OnError(fmt.Errorf("flagpost: a decision was not published: %w", err))
}

func (p *DecisionPublisher) event(decision notification.DecisionNotification) decisionEvent {
	info := decision.DecisionInfo
	return decisionEvent{
		EventID:                 uuid.NewString(),
		OccurredAt:              p.options.Now().UnixMilli(),
		Source:                  &source{Service: text(p.options.Service), SDK: text("go-sdk")},
		VisitorID:               decision.UserContext.ID,
		FlagKey:                 info["flagKey"].(string),
		Enabled:                 info["enabled"].(bool),
		VariationKey:            text(info["variationKey"].(string)),
		RuleKey:                 text(info["ruleKey"].(string)),
		DecisionEventDispatched: info["decisionEventDispatched"].(bool),
		RuleType:                text(p.rules.Load().of(info["flagKey"].(string), info["ruleKey"].(string))),
		Attributes:              p.carried(decision.UserContext.Attributes),
	}
}

func (p *DecisionPublisher) carried(attributes map[string]any) map[string]any {
	carried := map[string]any{}
	for _, name := range p.options.Attributes {
		value, given := attributes[name]
		if !given {
			continue
		}
		if fitting, err := scalar(value); err == nil {
			carried[name] = fitting
		}
	}
	return carried
}

var errNoScalar = errors.New("not a null, boolean, number or string")

// scalar gives a value in the type that its branch of the schema's union has.
func scalar(value any) (any, error) {
	switch value := value.(type) {
	case nil, bool, int64, float64, string:
		return value, nil
	case int:
		return int64(value), nil
	case int32:
		return int64(value), nil
	case float32:
		return float64(value), nil
	default:
		return nil, errNoScalar
	}
}

// text is null for "", which is how this SDK says that there is no variation or rule.
func text(value string) *string {
	if value == "" {
		return nil
	}
	return &value
}
