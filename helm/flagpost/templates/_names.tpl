{{/* Names, labels, annotations and the image. Texts come out quoted: a release may be called 4711, on or null. */}}

{{- define "flagpost.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
42 characters at most, so that a CronJob's name, the shortest that there is, stays within its 52. Services want a letter
at the front, and no dots. A name that had to be changed ends in a digest of what it should have been, so that two of
them are never one.
*/}}
{{- define "flagpost.fullname" -}}
{{- $name := include "flagpost.name" . -}}
{{- $release := .Release.Name -}}
{{- $full := contains $name $release | ternary $release (printf "%s-%s" $release $name) -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
{{- $full = printf "%s-%s" $name $release -}}
{{- end -}}
{{- $full = .Values.fullnameOverride | default $full -}}
{{- if or (gt (len $full) 42) (contains "." $full) -}}
{{- printf "%s-%s" ($full | replace "." "-" | trunc 33 | trimSuffix "-") (sha256sum $full | trunc 8) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}

{{/* What an object's pods are chosen by. In: {root}, and component where there is one. */}}
{{- define "flagpost.selector" -}}
app.kubernetes.io/name: {{ include "flagpost.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . | quote }}
{{- end }}
{{- end -}}

{{/*
Labels, each once: the chart's own, which others go by, then the object's, then commonLabels.
In: {root}, and as needed component and labels.
*/}}
{{- define "flagpost.labels" -}}
{{- $labels := include "flagpost.selector" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_" | trunc 63) -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version -}}
{{- $_ := set $labels "helm.sh/chart" ($chart | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge $labels (.labels | default dict) .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/*
An object's name, namespace, labels and annotations. In: {root}, and as needed: component, which the name ends in;
suffix, for another end; name, for quite another name; namespace, for another one; labels and annotations, for further
ones.
*/}}
{{- define "flagpost.metadata" -}}
{{- $ending := list (include "flagpost.fullname" .root) (.suffix | default .component) | compact | join "-" -}}
name: {{ .name | default $ending | quote }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
labels:
  {{- include "flagpost.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* By digest where there is one. global.imageRegistry wins over any registry that is named here. */}}
{{- define "flagpost.image" -}}
{{- $image := .Values.image -}}
{{- $registry := (.Values.global | default dict).imageRegistry | default $image.registry -}}
{{- $repository := $image.repository -}}
{{- if $registry -}}
{{- $repository = printf "%s/%s" $registry (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "") -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Those of the chart and of the charts around it, which may be names alone. Out: a JSON list. */}}
{{- define "flagpost.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat ((.Values.global | default dict).imagePullSecrets | default list) .Values.imagePullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- $secrets | uniq | toJson -}}
{{- end -}}

{{- define "flagpost.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "flagpost.fullname" .) "default") -}}
{{- end -}}
