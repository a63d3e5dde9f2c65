"""Renders charts by Helm's own engine, reads manifests, and checks them by Kubernetes's schemas.

Takes one request as JSON on stdin and answers with JSON on stdout:

    { "chart": DIRECTORY-OR-ARCHIVE,
      "renders": [ { "name", "namespace", "values": OBJECT | "yaml": TEXT } ],
      "files": [ PATH ],            manifests to be read
      "versions": [ "1.30" ] }      Kubernetes's, to check by

    { "lint": [ { "severity", "path", "error" } ],
      "renders": [ { "texts": { TEMPLATE: TEXT }, "objects": [ OBJECT ] } | { "error": TEXT } ],
      "files": [ [ OBJECT ] ],
      "invalid": [ TEXT ] }
"""

import json
import sys

import helm_python as helm
import yaml
from kubernetes_validate import utils as schemas


def objects(text):
    return [found for found in yaml.safe_load_all(text) if found is not None]


def render(chart, request):
    try:
        values = request.get("values", {})
        if "yaml" in request:
            values = helm.values_from_yaml(request["yaml"])
        chart.validate_schema(values)
        texts = chart.render(values, name=request["name"], namespace=request["namespace"])
    except helm.HelmError as error:
        return {"error": str(error)}
    texts = {path.split("/templates/")[1]: text for path, text in texts.items()}
    manifests = [text for path, text in sorted(texts.items()) if path.endswith(".yaml")]
    return {"texts": texts, "objects": [o for text in manifests for o in objects(text)]}


def invalid(found, versions):
    for version in versions:
        for manifest in found:
            # Kubernetes has schemas of its own kinds alone.
            if "." in manifest["apiVersion"].split("/")[0]:
                continue
            try:
                schemas.validate(manifest, version, strict=True)
            except (schemas.ValidationError, schemas.SchemaNotFoundError) as error:
                yield f"{version}: {manifest['kind']}: {error.message}"


def main():
    request = json.load(sys.stdin)
    with helm.Chart.load(request["chart"]) as chart:
        renders = [render(chart, wanted) for wanted in request.get("renders", [])]
    files = []
    for path in request.get("files", []):
        with open(path, encoding="utf-8") as file:
            files.append(objects(file.read()))
    found = [o for render in renders for o in render.get("objects", [])]
    found += [o for file in files for o in file]
    answer = {
        "lint": helm.lint(request["chart"])["messages"],
        "renders": renders,
        "files": files,
        "invalid": list(invalid(found, request.get("versions", []))),
    }
    json.dump(answer, sys.stdout)


main()
