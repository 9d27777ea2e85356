package main

import (
	"encoding/json"

	"github.com/hamba/avro/v2"
	"github.com/hamba/avro/v2/soe"
)

// singleObjectCodec makes a codec of Avro's single-object encoding from the text of an .avsc.
//
// Values have the types beneath logical types: a timestamp-millis is an int64. The specification takes the
// fingerprint of a schema without logical types, hamba/avro of one that keeps them: so they are taken out here.
func singleObjectCodec(text []byte) (*soe.Codec, error) {
	var document any
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(withoutLogicalTypes(document))
	if err != nil {
		return nil, err
	}
	schema, err := avro.ParseBytes(plain)
	if err != nil {
		return nil, err
	}
	return soe.NewCodec(schema)
}

func withoutLogicalTypes(schema any) any {
	switch schema := schema.(type) {
	case map[string]any:
		delete(schema, "logicalType")
		for name, member := range schema {
			schema[name] = withoutLogicalTypes(member)
		}
	case []any:
		for position, member := range schema {
			schema[position] = withoutLogicalTypes(member)
		}
	}
	return schema
}
