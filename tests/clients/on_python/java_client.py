# client: Java's HttpClient; environment: project; needs: javac; wires: openai native anthropic google
# set: `URI.create("URL/v1/chat/completions")`
"""`java.net.http.HttpClient` itself at its default, which offers HTTP/2 in clear text: whole and streamed."""

import re
import subprocess
import tempfile
from pathlib import Path

SOURCE = """
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Ask {
    public static void main(String[] given) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (String stream : new String[] {"false", "true", "false"}) {
            String body = "{\\"model\\":\\"" + given[1] + "\\",\\"stream\\":" + stream
                + ",\\"messages\\":[{\\"role\\":\\"user\\",\\"content\\":\\"Repeat exactly: one two three\\"}]}";
            HttpRequest request = HttpRequest.newBuilder(URI.create(given[0] + "/chat/completions"))
                .header("Content-Type", "application/json").header("Authorization", "Bearer any")
                .POST(HttpRequest.BodyPublishers.ofString(body)).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.version() + " " + answer.body().replace("\\n", " "));
        }
    }
}
"""
TOLD = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=True).stdout
VERSION = TOLD.split()[1]


def check_three_requests(proxy):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Ask.java").write_text(SOURCE)
        subprocess.run(["javac", "Ask.java"], cwd=folder, check=True)
        command = ["java", "-cp", folder, "Ask", proxy.url, proxy.model]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    whole, streamed, again = done.stdout.splitlines()
    for line in (whole, streamed, again):
        assert line.startswith("200 HTTP_1_1 "), done.stdout + done.stderr
    assert '"content":"one two three' in whole and '"content":"one two three' in again
    said = "".join(re.findall(r'"content":"([^"]*)"', streamed))
    assert said.strip() == "one two three" and streamed.rstrip().endswith("data: [DONE]")
