{{/*
What of the settings file concerns Kubernetes, and how each component finds it and its secrets. In, mostly:
{root, component}.
*/}}

{{/*
A key of `config` as text, maps as JSON, empty where it is not given; a section whose keys are all commented out is
null. In: [root, "section.key"].
*/}}
{{- define "flagpost.setting" -}}
{{- $here := (first .).Values.config -}}
{{- range splitList "." (last .) -}}
{{- $here = get (kindIs "map" $here | ternary $here dict) . -}}
{{- end -}}
{{- if kindIs "map" $here -}}
{{- toJson $here -}}
{{- else if not (kindIs "invalid" $here) -}}
{{- $here -}}
{{- end -}}
{{- end -}}

{{/* Ports: what `config` does not say has the program's default. */}}
{{- define "flagpost.consumer.adminPort" -}}
{{- include "flagpost.setting" (list . "admin.port") | default "8080" -}}
{{- end -}}

{{- define "flagpost.gateway.port" -}}
{{- include "flagpost.setting" (list . "gateway.port") | default "8081" -}}
{{- end -}}

{{- define "flagpost.gateway.adminPort" -}}
{{- include "flagpost.setting" (list . "gateway.admin_port") | default "8082" -}}
{{- end -}}

{{- define "flagpost.web.port" -}}
{{- include "flagpost.setting" (list . "web.port") | default "8084" -}}
{{- end -}}

{{/* The drain, 10 s to leave the group, and 5 s for the rest. */}}
{{- define "flagpost.consumer.graceSeconds" -}}
{{- include "flagpost.setting" (list . "delivery.drain_seconds") | default "20" | ceil | int | add 15 -}}
{{- end -}}

{{/* Who a component is for Kafka: the consumer's commands are the consumer. Out: consumer, gateway or topics. */}}
{{- define "flagpost.user" -}}
{{- has .component (list "gateway" "topics") | ternary .component "consumer" -}}
{{- end -}}

{{/* The Secret that a user's secrets are in. In: {root, user}. */}}
{{- define "flagpost.secretName" -}}
{{- $given := (get .root.Values.secrets .user | default dict).existingSecret -}}
{{- $given | default (printf "%s-%s" (include "flagpost.fullname" .root) .user) -}}
{{- end -}}

{{- define "flagpost.kafkaSecretName" -}}
{{- (get .root.Values.kafkaUsers .user).existingSecret | default (include "flagpost.secretName" .) -}}
{{- end -}}

{{/*
The secrets that a component reads from files, and no others: Pendo's keys are the consumer's, and those of the test
that asks Pendo whether they are right. Out: JSON {files: [{setting, key}]}; the setting's name is also the file's.
*/}}
{{- define "flagpost.secretFiles" -}}
{{- $secrets := get .root.Values.secrets (include "flagpost.user" .) | default dict -}}
{{- $files := list -}}
{{- range $setting, $value := get (include "flagpost.secretsOf" . | fromYaml) .component -}}
{{- with get $secrets $value -}}
{{- $files = append $files (dict "setting" $setting "key" .) -}}
{{- end -}}
{{- end -}}
{{- dict "files" $files | toJson -}}
{{- end -}}

{{- define "flagpost.secretsOf" -}}
consumer: &pendo
  pendo.track_secret: trackSecret
  pendo.integration_key: integrationKey
  kafka.schema_registry.password: registryPassword
check: *pendo
reconcile:
  kafka.schema_registry.password: registryPassword
web:
  web.token: webToken
  kafka.schema_registry.password: registryPassword
gateway:
  gateway.write_keys: writeKeys
  gateway.webhook_secret: webhookSecret
  kafka.schema_registry.password: registryPassword
topics: {}
{{- end -}}

{{/* Keys of a user's own Secret that are files without a setting of their own: settings name their paths. */}}
{{- define "flagpost.otherFiles" -}}
{{- (get .root.Values.secrets (include "flagpost.user" .) | default dict).files | default list | toJson -}}
{{- end -}}

{{/* The write keys that have a name: name to key of the Secret, as JSON. */}}
{{- define "flagpost.namedKeys" -}}
{{- (eq .component "gateway" | ternary .root.Values.secrets.gateway.keys dict) | toJson -}}
{{- end -}}

{{/* The keys that a user's own Secret must have, as a JSON list. In: {root, user}; a user's name is a component's. */}}
{{- define "flagpost.secretKeys" -}}
{{- $here := dict "root" .root "component" .user -}}
{{- $keys := concat (include "flagpost.otherFiles" $here | fromJsonArray) (include "flagpost.namedKeys" $here | fromJson | values) -}}
{{- $files := (include "flagpost.secretFiles" $here | fromJson).files -}}
{{- if and (eq .user "consumer") .root.Values.web.enabled -}}
{{- $files = concat $files (include "flagpost.secretFiles" (dict "root" .root "component" "web") | fromJson).files -}}
{{- end -}}
{{- range $files -}}
{{- $keys = append $keys .key -}}
{{- end -}}
{{- $kafka := get .root.Values.kafkaUsers .user -}}
{{- if not $kafka.existingSecret -}}
{{- $keys = concat $keys (values $kafka.secretProperties) -}}
{{- end -}}
{{- $keys | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The users whose pods there are, as a JSON list. In: the root context. */}}
{{- define "flagpost.users" -}}
{{- list "consumer" (.Values.gateway.enabled | ternary "gateway" "") (.Values.topics.create | ternary "topics" "") | compact | toJson -}}
{{- end -}}

{{/* The environment that the chart itself gives a component. */}}
{{- define "flagpost.ownEnv" -}}
- name: FLAGPOST_CONFIG
  value: /etc/flagpost/flagpost.yaml
{{- range (include "flagpost.secretFiles" . | fromJson).files }}
- name: FLAGPOST_{{ .setting | upper | replace "." "__" }}_FILE
  value: /run/secrets/flagpost/{{ .setting }}
{{- end }}
{{- if eq .component "web" }}
{{- include "flagpost.webEnv" .root }}
{{- end }}
{{- if and (eq .component "topics") (include "flagpost.setting" (list .root "privacy.ledger_ids")) }}
# Who creates topics reads no ledger, and is not given its key.
- name: FLAGPOST_PRIVACY__LEDGER_IDS
  value: plain
{{- end }}
{{- with include "flagpost.namedKeys" . | fromJson }}
{{- $keys := include "flagpost.setting" (list $.root "gateway.keys") | default "{}" | fromJson }}
{{- range $name, $_ := . }}
{{- $file := dict "key_file" (printf "/run/secrets/flagpost/gateway.keys/%s" $name) }}
{{- $_ := set $keys $name (merge $file (get $keys $name | default dict)) }}
{{- end }}
- name: FLAGPOST_GATEWAY__KEYS
  value: {{ $keys | toJson | quote }}
{{- end }}
{{- $kafka := get .root.Values.kafkaUsers (include "flagpost.user" .) }}
{{- with $kafka.properties }}
- name: FLAGPOST_KAFKA__PROPERTIES
  value: {{ merge (dict) . (include "flagpost.setting" (list $.root "kafka.properties") | default "{}" | fromJson) | toJson | quote }}
{{- end }}
{{- with $kafka.secretProperties }}
{{- $files := dict }}
{{- range $property, $key := . }}
{{- $_ := set $files $property (printf "/run/secrets/flagpost/kafka/%s" $property) }}
{{- end }}
- name: FLAGPOST_KAFKA__PROPERTIES_FILES
  value: {{ merge $files (include "flagpost.setting" (list $.root "kafka.properties_files") | default "{}" | fromJson) | toJson | quote }}
{{- end }}
{{- end -}}

{{/* Where the page listens, how it is called, and whom it asks, as far as `config` does not say so itself. */}}
{{- define "flagpost.webEnv" -}}
{{- $name := include "flagpost.fullname" . -}}
{{- $service := printf "%s-web" $name -}}
{{- $within := printf "%s.%s" $service .Release.Namespace -}}
{{- $hosts := concat (list $service $within (printf "%s.svc" $within)) (.Values.web.ingress.enabled | ternary .Values.web.ingress.hosts list) -}}
{{- $own := dict "web.host" "0.0.0.0" "web.hosts" ($hosts | toJson)
  "web.consumers" (list (printf "http://%s-consumers:%s" $name (include "flagpost.consumer.adminPort" .)) | toJson) -}}
{{- range $setting, $value := $own }}
{{- if not (include "flagpost.setting" (list $ $setting)) }}
- name: FLAGPOST_{{ $setting | upper | replace "." "__" }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
What users add to a component under one key, a list: for all, and for it alone. The test sees what the consumer sees.
In: {root, component, key}. Out: JSON.
*/}}
{{- define "flagpost.extra" -}}
{{- $own := get .root.Values (eq .component "check" | ternary "consumer" .component) | default dict -}}
{{- concat (get .root.Values .key | default list) (get $own .key | default list) | toJson -}}
{{- end -}}

{{/* The whole environment of a component. */}}
{{- define "flagpost.env" -}}
{{ include "flagpost.ownEnv" . }}
{{- with include "flagpost.extra" (merge (dict "key" "extraEnv") .) | fromJsonArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "flagpost.volumeMounts" -}}
- name: config
  mountPath: /etc/flagpost
  readOnly: true
{{- if include "flagpost.secretSources" . }}
- name: secrets
  mountPath: /run/secrets/flagpost
  readOnly: true
{{- end }}
{{- with include "flagpost.extra" (merge (dict "key" "extraVolumeMounts") .) | fromJsonArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The volumes of a pod. */}}
{{- define "flagpost.volumes" -}}
- name: config
  configMap:
    name: {{ include "flagpost.fullname" .root | quote }}
{{- with include "flagpost.secretSources" . }}
- name: secrets
  projected:
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with include "flagpost.extra" (merge (dict "key" "extraVolumes") .) | fromJsonArray }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Of the Secrets, what the component reads and nothing else. Not by subPath: only whole volumes follow a rotated Secret.
*/}}
{{- define "flagpost.secretSources" -}}
{{- $user := include "flagpost.user" . -}}
{{- $here := dict "root" .root "user" $user -}}
{{- $files := (include "flagpost.secretFiles" . | fromJson).files -}}
{{- $others := include "flagpost.otherFiles" . | fromJsonArray -}}
{{- $named := include "flagpost.namedKeys" . | fromJson -}}
{{- if concat $files $others (keys $named) -}}
- secret:
    name: {{ include "flagpost.secretName" $here | quote }}
    items:
      {{- range $files }}
      - key: {{ .key | quote }}
        path: {{ .setting | quote }}
      {{- end }}
      {{- range $others }}
      - key: {{ . | quote }}
        path: {{ printf "files/%s" . | quote }}
      {{- end }}
      {{- range $name, $key := $named }}
      - key: {{ $key | quote }}
        path: {{ printf "gateway.keys/%s" $name | quote }}
      {{- end }}
{{ end -}}
{{- with (get .root.Values.kafkaUsers $user).secretProperties -}}
- secret:
    name: {{ include "flagpost.kafkaSecretName" $here | quote }}
    items:
      {{- range $property, $key := . }}
      - key: {{ $key | quote }}
        path: {{ printf "kafka/%s" $property | quote }}
      {{- end }}
{{- end -}}
{{- end -}}
