package io.flagpost.connect;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.AvroRuntimeException;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericFixed;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.kafka.common.config.AbstractConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Timestamp;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.storage.Converter;

/**
 * Reads records in Avro's single-object encoding (c3 01, the schema's fingerprint, the data) for any sink.
 *
 * <p>In: values of the ledger topic, and the schemas as files. Out: structs with a schema. It needs no registry: a
 * record of another version than the first file's is read if that version's file is given as well, and has the first
 * one's fields then.
 */
public final class SingleObjectConverter implements Converter {
  /** The files of the schemas, the one whose fields sinks get first. */
  public static final String SCHEMA_FILES = "schema.files";

  private static final ConfigDef CONFIG =
      new ConfigDef().define(SCHEMA_FILES, ConfigDef.Type.LIST, ConfigDef.Importance.HIGH, "The schemas' files.");

  private BinaryMessageDecoder<GenericRecord> decoder;
  private Schema schema;

  @Override
  public ConfigDef config() {
    return CONFIG;
  }

  @Override
  public void configure(Map<String, ?> settings, boolean isKey) {
    List<org.apache.avro.Schema> schemas = new ArrayList<>();
    for (String file : new AbstractConfig(CONFIG, settings).getList(SCHEMA_FILES)) {
      schemas.add(read(file));
    }
    org.apache.avro.Schema wanted = schemas.get(0);
    decoder = new BinaryMessageDecoder<>(new GenericData(), wanted);
    schemas.forEach(decoder::addSchema);
    schema = connectSchema(wanted, false);
  }

  @Override
  public SchemaAndValue toConnectData(String topic, byte[] value) {
    if (value == null) {
      return SchemaAndValue.NULL;
    }
    try {
      return new SchemaAndValue(schema, connectValue(schema, decoder.decode(value)));
    } catch (IOException | AvroRuntimeException error) {
      throw new DataException("A record of " + topic + " cannot be read: " + error.getMessage(), error);
    }
  }

  @Override
  public byte[] fromConnectData(String topic, Schema given, Object value) {
    throw new DataException("This converter reads only: " + topic + " is Flagpost's");
  }

  private static org.apache.avro.Schema read(String file) {
    try {
      return new org.apache.avro.Schema.Parser().parse(Path.of(file).toFile());
    } catch (IOException error) {
      throw new DataException("The schema " + file + " cannot be read: " + error.getMessage(), error);
    }
  }

  private static Schema connectSchema(org.apache.avro.Schema avro, boolean optional) {
    if (avro.isUnion()) {
      List<org.apache.avro.Schema> others =
          avro.getTypes().stream().filter(each -> each.getType() != org.apache.avro.Schema.Type.NULL).toList();
      if (others.size() != 1) {
        throw new DataException("Of unions only a type or null can be had: " + avro);
      }
      return connectSchema(others.get(0), true);
    }
    SchemaBuilder builder = builder(avro);
    return optional ? builder.optional().build() : builder.build();
  }

  private static SchemaBuilder builder(org.apache.avro.Schema avro) {
    return switch (avro.getType()) {
      case RECORD -> {
        SchemaBuilder struct = SchemaBuilder.struct().name(avro.getFullName());
        avro.getFields().forEach(field -> struct.field(field.name(), connectSchema(field.schema(), false)));
        yield struct;
      }
      case ARRAY -> SchemaBuilder.array(connectSchema(avro.getElementType(), false));
      case MAP -> SchemaBuilder.map(Schema.STRING_SCHEMA, connectSchema(avro.getValueType(), false));
      case STRING, ENUM -> SchemaBuilder.string();
      case BYTES, FIXED -> SchemaBuilder.bytes();
      case BOOLEAN -> SchemaBuilder.bool();
      case INT -> SchemaBuilder.int32();
      case LONG -> "timestamp-millis".equals(avro.getProp("logicalType")) ? Timestamp.builder() : SchemaBuilder.int64();
      case FLOAT -> SchemaBuilder.float32();
      case DOUBLE -> SchemaBuilder.float64();
      default -> throw new DataException("Connect has no such type: " + avro.getType());
    };
  }

  private static Object connectValue(Schema schema, Object value) {
    if (value == null) {
      return null;
    }
    if (Timestamp.LOGICAL_NAME.equals(schema.name())) {
      return new Date((Long) value);
    }
    return switch (schema.type()) {
      case STRUCT -> struct(schema, (GenericRecord) value);
      case ARRAY -> ((List<?>) value).stream().map(each -> connectValue(schema.valueSchema(), each)).toList();
      case MAP -> map(schema, (Map<?, ?>) value);
      case STRING -> value.toString();
      case BYTES -> value instanceof GenericFixed fixed ? ByteBuffer.wrap(fixed.bytes()) : value;
      default -> value;
    };
  }

  private static Struct struct(Schema schema, GenericRecord record) {
    Struct struct = new Struct(schema);
    for (Field field : schema.fields()) {
      struct.put(field, connectValue(field.schema(), record.get(field.name())));
    }
    return struct;
  }

  private static Map<String, Object> map(Schema schema, Map<?, ?> values) {
    Map<String, Object> map = new HashMap<>();
    values.forEach((name, value) -> map.put(name.toString(), connectValue(schema.valueSchema(), value)));
    return map;
  }
}
