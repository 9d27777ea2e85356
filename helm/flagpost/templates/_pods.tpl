{{/* What the pods of all components have in common. */}}

{{/* Metadata of a pod; without the chart's version, which is no reason for a restart. In: {root, component}. */}}
{{- define "flagpost.podMetadata" -}}
{{- $values := get .root.Values .component -}}
annotations:
  {{- include "flagpost.configChecksum" .root | nindent 2 }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "flagpost.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Identity and security of a pod. In: the root context. */}}
{{- define "flagpost.podIdentity" -}}
serviceAccountName: {{ include "flagpost.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Where a pod runs. In: {root, component}. */}}
{{- define "flagpost.placement" -}}
{{- $values := get .root.Values .component -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.topologyKeys }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "flagpost.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
    matchLabelKeys:
      - pod-template-hash
  {{- end }}
{{- end }}
{{ include "flagpost.nodes" . }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Which nodes may run a component's pods. In: {root, component}. */}}
{{- define "flagpost.nodes" -}}
{{- range $key := list "nodeSelector" "tolerations" }}
{{- with get (get $.root.Values $.component) $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A container, up to its ports and probes. In: {root, component, name, command, resources}. */}}
{{- define "flagpost.container" -}}
- name: {{ .name }}
  image: {{ include "flagpost.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command:
    {{- toYaml .command | nindent 4 }}
  env:
    {{- include "flagpost.env" . | nindent 4 }}
  volumeMounts:
    {{- include "flagpost.volumeMounts" . | nindent 4 }}
  securityContext:
    {{- toYaml .root.Values.securityContext | nindent 4 }}
  resources:
    {{- toYaml .resources | nindent 4 }}
{{- end -}}

{{/*
Probes on the port `admin`. A restore of the ledger is live and ready, so no probe waits for it; two minutes to the
first answer are for nodes that are short of CPU.
*/}}
{{- define "flagpost.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{/* In: {root, component, several}; with a single pod a budget could only hold up a node's drain. */}}
{{- define "flagpost.podDisruptionBudget" -}}
{{- $budget := (get .root.Values .component).podDisruptionBudget -}}
{{- if and $budget.enabled .several }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "flagpost.metadata" (dict "root" .root "component" .component) | nindent 2 }}
spec:
  maxUnavailable: {{ $budget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "flagpost.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- end -}}
