{{/* Names, labels and quantities that several templates use. */}}

{{/* The teams with their defaults, as JSON: {"teams": [...]}. `namespace`, `module` and `image` are settled. */}}
{{- define "ml-assets.teams" -}}
{{- $teams := list -}}
{{- $seen := dict -}}
{{- range .Values.teams -}}
  {{- $team := mergeOverwrite (deepCopy $.Values.teamDefaults) (deepCopy .) -}}
  {{- $namespace := printf "%s%s" $.Values.namespacePrefix (replace "_" "-" .name) -}}
  {{- if hasKey $seen $namespace -}}
    {{- fail (printf "teams: %q and %q would share the namespace %s; expected each team once" (get $seen $namespace) .name $namespace) -}}
  {{- end -}}
  {{- if eq $namespace $.Release.Namespace -}}
    {{- fail (printf "teams: the namespace of %q is the release's own, %s; set namespacePrefix, or install into another one" .name $namespace) -}}
  {{- end -}}
  {{- if or (hasPrefix "kube-" $namespace) (eq $namespace "default") -}}
    {{- fail (printf "teams: the namespace of %q is %s, which is Kubernetes' own; set namespacePrefix to another one" .name $namespace) -}}
  {{- end -}}
  {{- $_ := set $seen $namespace .name -}}
  {{- $_ := set $team "namespace" $namespace -}}
  {{- $_ := set $team "module" ($team.module | default (printf "deployments.%s.definitions" .name)) -}}
  {{- $image := deepCopy $.Values.image -}}
  {{- range $own := list $.Values.teamDefaults.image (.image | default dict) -}}
    {{- if $own.tag }}{{ $_ := set $image "digest" "" }}{{ end -}}
    {{- $image = mergeOverwrite $image (deepCopy $own) -}}
  {{- end -}}
  {{- if not (and $image.repository (or $image.tag $image.digest)) -}}
    {{- fail (printf "teams: the image of %q is without a name or a version; expected `repository`, and `tag` or `digest`" .name) -}}
  {{- end -}}
  {{- $_ := set $team "image" $image -}}
  {{- $_ := set $team "secrets" (concat $.Values.secrets $team.secrets | uniq) -}}
  {{- $_ := set $team "environment" (mergeOverwrite (deepCopy $.Values.environment) (deepCopy $team.environment)) -}}
  {{- range $what := list "codeServer" "runWorker" -}}
    {{- range $unit := list "cores" "memoryGib" -}}
      {{- if gt (float64 (get (get $team $what) $unit)) (float64 (get $team.largestStep $unit)) -}}
        {{- fail (printf "teams: %s.%s of %q is %v; expected at most largestStep.%s, %v" $what $unit $team.name (get (get $team $what) $unit) $unit (get $team.largestStep $unit)) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- $teams = append $teams $team -}}
{{- end -}}
{{- dict "teams" $teams | toJson -}}
{{- end -}}

{{- define "ml-assets.labels" -}}
app.kubernetes.io/part-of: ml-assets
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Metadata of a team's object. Takes (list $ team name). */}}
{{- define "ml-assets.team-metadata" -}}
name: {{ index . 2 }}
namespace: {{ (index . 1).namespace }}
labels:
  {{- include "ml-assets.labels" (index . 0) | nindent 2 }}
  ml-assets/team: {{ (index . 1).name | quote }}
{{- end -}}

{{/* The same for what bounds a team: it outlives the team's entry, so that what still runs there is not let loose. */}}
{{- define "ml-assets.bound-metadata" -}}
{{ include "ml-assets.team-metadata" . }}
annotations: {helm.sh/resource-policy: keep}
{{- end -}}

{{/* An image's full name; without a fixed version nobody could say what ran. */}}
{{- define "ml-assets.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else if and .repository .tag -}}
{{ .repository }}:{{ .tag }}
{{- else -}}
{{- fail "image: expected `repository`, and `tag` or `digest`" -}}
{{- end -}}
{{- end -}}

{{- define "ml-assets.cpu" -}}{{ printf "%dm" (int (round (mulf . 1000.0) 0)) }}{{- end -}}
{{- define "ml-assets.memory" -}}{{ printf "%dMi" (int (round (mulf . 1024.0) 0)) }}{{- end -}}

{{- define "ml-assets.pod-security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ml-assets.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where a container may write. Takes a team. */}}
{{- define "ml-assets.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .scratchGib }}Gi}
- name: home
  emptyDir: {sizeLimit: 1Gi}
{{- end -}}

{{- define "ml-assets.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: {{ .Values.global.dagsterHome }}}
{{- end -}}
